"""`python -m facemodels` is the command `facemodels`; launchers of distributed runs use this form."""

from facemodels.cli import main

if __name__ == "__main__":
    main()
