"""What is looked at while a network learns: a sheet of pictures, and measures on a few dozen held-out faces."""

import os
from pathlib import Path

import torch

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.dataset import Faces, PreparedSet, faces_from_rows
from facemodels.errors import InputError
from facemodels.evaluation.exchange import donors, spread
from facemodels.evaluation.gates import gates
from facemodels.evaluation.measures import encode_all, reconstruction
from facemodels.evaluation.pose_swaps import in_other_pose
from facemodels.sheets import training_sheet

BEST = "psnr_face"
"""The measure that says which checkpoint is best, higher being better: what the face stream paints, against photos it
has not seen. The whole picture's PSNR would favour a network that paints the face past its codes."""

_SHOWN = 6  # faces of the sheet
_EXCHANGED = 16  # faces whose codes are exchanged


class Monitor:
    """Measures a network during training and draws its sheet; neither changes the network or any random state.

    The faces are held out, evenly spread over the split "test", so that those of a set which is ordered by person
    show many persons; of a set that holds none back they are faces it is trained on.

    Args:
        prepared: The set that is trained on.
        run: Directory of the run; sheets go to its folder `sheets`.
        count: Faces that are measured.

    Raises:
        InputError: The set is empty.

    Example:
        monitor = Monitor(prepared, "runs/celeba")
        values = monitor(network, step)          # writes runs/celeba/sheets/step-00000500.png
        best = max(best, values[BEST])
    """

    def __init__(self, prepared: PreparedSet, run: str | os.PathLike[str], count: int = 32):
        splits = prepared.table["split"][:]
        split = "test" if "test" in splits else "train"
        rows = [number for number, value in enumerate(splits) if value == split]
        if not rows:
            raise InputError(f"{prepared.path} holds no faces; prepare it from more photos")
        chosen = [rows[place] for place in spread(len(rows), count).tolist()]
        self.faces: Faces = faces_from_rows(prepared.table.select(chosen))
        self.sheets = Path(run) / "sheets"

    @torch.no_grad()
    def __call__(self, network: NeuroTensorialAutoencoder, step: int) -> dict[str, float]:
        """Write the sheet of a step and return the measures.

        Args:
            network: The network, not wrapped; it comes back in the mode it was in.
            step: Number of the step.

        Returns:
            What `facemodels.evaluation` says of these faces: `reconstruction`, `in_other_pose` (in the rotation that
            the set shows them in) and `gates`.
        """
        device = next(network.parameters()).device
        faces = self.faces.to(device)
        some = spread(len(faces), _EXCHANGED)
        learning = network.training
        network.eval()
        try:
            with torch.autocast(device.type, enabled=False):
                codings = encode_all(network, faces)
                measures = {
                    **reconstruction(faces, codings),
                    **in_other_pose(network, faces[some], codings[some]),
                    **gates(network, faces, codings, _EXCHANGED),
                }
                photos = faces[spread(len(faces), _SHOWN)].pictures()
                sheet = training_sheet(network, photos, photos[donors(len(photos)).to(device)])
        finally:
            network.train(learning)
        self.sheets.mkdir(parents=True, exist_ok=True)
        sheet.save(self.sheets / f"step-{step:08d}.png")
        return measures
