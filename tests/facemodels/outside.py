"""Photos and a morphable model of others, which are never committed; without them some tests are skipped.

The folder `FACEMODELS_SHARED`, by default `shared` beside the clone, holds `data/celeba/images.zip`, its `labels.csv`
beside it, and `data/ict-facekit/ict_facekit_light_face.npz`.
"""

import os
from pathlib import Path

SHARED = Path(os.environ.get("FACEMODELS_SHARED") or Path(__file__).parents[3] / "shared")
CELEBA = SHARED / "data/celeba/images.zip"
ICT = SHARED / "data/ict-facekit/ict_facekit_light_face.npz"
