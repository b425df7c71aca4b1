"""Morphable models of others, from the files that their owners give out.

| model | file | needs |
| --- | --- | --- |
| ICT-FaceKit (MIT) | the folder `FaceXModel`, or its light face as npz | |
| Basel Face Model 2009 | `01_MorphableModel.mat` | scipy |
| Basel Face Model 2017, 2019 | `model2017-1_*.h5`, `model2019_*.h5` | the extra `models` (h5py) |
| FLAME 2020, 2023 | `generic_model.pkl`, `flame2023.pkl`, or an npz with the same names | |
| Surrey and other models of eos | `sfm_shape_3448.bin` and the like | |

None of these files comes with this package, and nothing in them is executed.
"""

from facemodels.morphable.converters.recognise import from_file as from_file
