"""The page to play with: photos edited by sliders in the browser, all on this machine."""

from facemodels.app.serve import serve as serve
