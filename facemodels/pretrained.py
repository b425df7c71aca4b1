"""Networks in directories and on the Hugging Face hub.

The files config.json, model.safetensors, README.md and morphable.safetensors are written whole or not at all and read
without pickle. The weights carry a record of the settings and the morphable model they belong to, so that files of
different runs are noticed when they are read.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from torch import Tensor

from facemodels.config import NetworkConfig
from facemodels.errors import InputError
from facemodels.files import explained, read_tensors, whole_files, write_tensors
from facemodels.model_card import TAGS, model_card
from facemodels.morphable import MorphableModel

CONFIG, WEIGHTS, MORPHABLE, CARD = "config.json", "model.safetensors", "morphable.safetensors", "README.md"

SHIPPED = {"facefactors": Path(__file__).parent / "weights" / "facefactors"}
"""Networks that come with the package by name; they carry the built-in morphable model, which code makes."""

_BEFORE_IT_WAS_A_SETTING = {"bottleneck": "tanh"}
"""What networks did before a setting existed, where that is not its default."""


class PretrainedMixin(
    ModelHubMixin,
    library_name="multilinear-faces",
    pipeline_tag="image-to-image",
    paper_url="https://arxiv.org/abs/1711.10402",
    tags=list(TAGS),
):
    """Saving, loading and sharing, with the signatures of `huggingface_hub.ModelHubMixin`.

    Of the hub's two mixins this is the one for formats of one's own: the one for PyTorch falls back to pickle, loads
    weights that do not fit, and knows one file of tensors. `push_to_hub` comes from the hub's mixin.

    Attributes:
        card: Text of README.md, as it was read or made from facts; it goes wherever the network is saved. Without one,
            saving writes a card from what the network knows of itself.
    """

    config: NetworkConfig
    morphable: MorphableModel | None
    card: str | None = None

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        config: None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write config.json, model.safetensors, README.md and, if there is one, morphable.safetensors.

        A directory that holds another network keeps it whole until all files of this one are on the disk.

        Args:
            save_directory: Directory; made if it does not exist. Other files in it stay.
            state_dict: Weights to write instead of the network's own: gathered from many processes, or in another
                precision.
            model_card_kwargs: What the model card should say; the keyword arguments of
                `facemodels.model_card.model_card`.
            push_to_hub: Whether to push the network to the hub, too. A morphable model that may not be redistributed
                stays at home with `ignore_patterns=["morphable.safetensors"]`.
            repo_id: Name on the hub; by default that of the directory.
            config: For the hub's mixin; the network's own is written.
            push_to_hub_kwargs: For `push_to_hub`.

        Returns:
            Address of the commit on the hub, if the network was pushed.

        Raises:
            InputError: The disk is full or cannot be written to.

        Example:
            >>> import tempfile, torch
            >>> from facemodels.autoencoder import NeuroTensorialAutoencoder
            >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5))
            >>> with tempfile.TemporaryDirectory() as path:
            ...     _ = model.save_pretrained(path)
            ...     again = NeuroTensorialAutoencoder.from_pretrained(path)
            >>> torch.equal(again.encoder.head.weight, model.encoder.head.weight)
            True
        """
        if model_card_kwargs is not None:
            self.card = str(self.generate_model_card(**model_card_kwargs))
        path = Path(save_directory)
        weights = self.state_dict() if state_dict is None else state_dict  # type: ignore[attr-defined]
        settings = self.config.to_dict()
        fingerprint = "" if self.morphable is None else self.morphable.fingerprint()
        record = {"format": "pt", "config": json.dumps(settings, sort_keys=True), "morphable": fingerprint}
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
        names = [*([] if self.morphable is None else [MORPHABLE]), WEIGHTS, CARD, CONFIG]
        with whole_files(*(path / name for name in names)) as (*morphable_file, weights_file, card_file, config_file):
            if self.morphable is not None:
                self.morphable.save(morphable_file[0])
            write_tensors(weights_file, weights, record)
            card_file.write_text(self.card or str(self.generate_model_card()), encoding="utf-8")
            config_file.write_text(json.dumps(settings, indent=1) + "\n")
        if self.morphable is None:
            (path / MORPHABLE).unlink(missing_ok=True)
        if push_to_hub:
            return self.push_to_hub(repo_id or path.resolve().name, **push_to_hub_kwargs)
        return None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        morphable: MorphableModel | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Read a network in float32, on the CPU and ready for inference; no pickle is involved.

        Args:
            pretrained_model_name_or_path: Directory written by `save_pretrained`, `owner/name` on the hub, or
                "facefactors" for the network that comes with the package, trained on rendered faces.
            morphable: The morphable model, where its terms keep it from lying beside the weights. Without any the
                network encodes and decodes as well, but knows no vertices.
            revision: Branch, tag or commit on the hub.
            cache_dir: Where the hub's files are kept.
            force_download: Whether to fetch files that are there already.
            local_files_only: Whether to look only at files that are there already.
            token: For private repositories of the hub.

        Raises:
            InputError: There is no such network, a file is damaged or another program's, or the files do not belong
                together.
        """
        name = os.fspath(pretrained_model_name_or_path)
        path = Path(name)
        if not path.exists() and name in SHIPPED:
            path, morphable = SHIPPED[name], morphable or MorphableModel.procedural()
        elif not path.exists() and _may_be_on_hub(name):
            options = {"revision": revision, "cache_dir": cache_dir, "force_download": force_download}
            path = _download(name, **options, local_files_only=local_files_only, token=token)
        settings, config = _read_config(name, path)
        try:
            weights, record = read_tensors(path / WEIGHTS)
        except InputError as error:
            raise InputError(f"the checkpoint {name} cannot be read: {error}") from error
        _check_same_run(name, settings, record)
        if morphable is None and (path / MORPHABLE).is_file():
            morphable = MorphableModel.load(path / MORPHABLE)
        if morphable is not None and record.get("morphable", "") not in ("", morphable.fingerprint()):
            raise InputError(
                f"the checkpoint {name} was trained with another morphable model than {morphable.name!r},"
                " or another version of it; its files come from different runs"
            )
        try:
            model = cls(config, morphable)
            model.load_state_dict(weights)  # type: ignore[attr-defined]
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"the checkpoint {name} does not fit its config.json: {_first_reason(error)};"
                " its files come from different runs"
            ) from error
        with contextlib.suppress(OSError, UnicodeDecodeError):
            model.card = (path / CARD).read_text(encoding="utf-8")
        return model.eval()  # type: ignore[attr-defined]

    def generate_model_card(self, *args: Any, **facts: Any) -> ModelCard:
        """The model card; `facts` are the keyword arguments of `facemodels.model_card.model_card`."""
        return model_card(self.config, self.morphable, **facts)


def _may_be_on_hub(name: str) -> bool:
    """Whether this is `owner/name` and no slip in a path: the owner is no directory here."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)) and not Path(name.split("/")[0]).exists()


def _download(name: str, **options: Any) -> Path:
    """Fetch the files of a network, the weights only when the configuration is one of ours.

    Raises:
        InputError: There is no such network, or the hub cannot be reached.
    """
    try:
        found = Path(snapshot_download(name, allow_patterns=[CONFIG], **options))
        _read_config(name, found, weights=False)
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, MORPHABLE, CARD], **options))
    except InputError:
        raise
    except Exception as error:  # the hub and the network answer in many ways
        raise InputError(
            f"there is no checkpoint at {name}, neither a directory here nor a model on the Hugging Face hub"
            f" ({_first_line(error)}); check the name, the network, and `hf auth login` for a private one"
        ) from error


def _read_config(name: str, path: Path, weights: bool = True) -> tuple[dict[str, Any], NetworkConfig]:
    """config.json as it is, and as settings.

    Raises:
        InputError: The directory is missing, is no checkpoint, or one of another program.
    """
    if not (path / CONFIG).is_file() or (weights and not (path / WEIGHTS).is_file()):
        raise InputError(
            f"there is no checkpoint at {name} (no config.json and model.safetensors);"
            " train one with `facemodels train` or make one with `facemodels demo`"
        )
    try:
        settings = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the checkpoint {name} cannot be read: its config.json is damaged ({error})") from error
    try:
        return settings, NetworkConfig.from_dict({**_BEFORE_IT_WAS_A_SETTING, **settings})
    except (InputError, TypeError) as error:
        raise InputError(f"{name} is a model of another program, or of another version of this: {error}") from error


def _check_same_run(name: str, settings: dict[str, Any], record: dict[str, str]) -> None:
    """Compare config.json with the weights' record of it; files of others and old ones have none.

    Raises:
        InputError: They differ.
    """
    recorded = json.loads(record.get("config", "{}"))
    differing = [key for key in {**recorded, **settings} if recorded and recorded.get(key) != settings.get(key)]
    if differing:
        key = differing[0]
        raise InputError(
            f"the checkpoint {name} does not fit its config.json: the weights have {key} {recorded.get(key)},"
            f" config.json {settings.get(key)}; its files come from different runs"
        )


def _first_reason(error: Exception) -> str:
    """What torch says first of weights that do not fit."""
    lines = str(error).strip().splitlines()
    return (lines[1] if isinstance(error, RuntimeError) and len(lines) > 1 else lines[0]).strip()[:300]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
