"""Fields from a student in ONNX: needs numpy and onnxruntime, and neither torch nor pidscale.

pidscale export --student students/darcy --out darcy.onnx
python docs/examples/run_onnx.py darcy.onnx fields.npz
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime

COUNT = 16

if len(sys.argv) != 3:
    raise SystemExit("usage: python run_onnx.py STUDENT.onnx FIELDS.npz")
session = onnxruntime.InferenceSession(sys.argv[1])
card = json.loads(session.get_modelmeta().custom_metadata_map["card"])
given = {entry.name: entry.shape for entry in session.get_inputs()}
rng = np.random.default_rng(0)
values = {"noise": rng.standard_normal((COUNT, *given["noise"][1:]), dtype=np.float32)}
if "params" in given:  # numbers that differ from sample to sample; their ranges are in card["equation"]
    raise SystemExit("this example is for equations without such numbers")
fields = session.run(["fields"], values)[0]
channels = [channel["name"] for channel in card["channels"]]
np.savez(sys.argv[2], **{name: fields[:, c] for c, name in enumerate(channels)})
for c, channel in enumerate(card["channels"]):
    mean, deviation = fields[:, c].mean(), fields[:, c].std()
    print(f"{channel['name']} [{channel['unit']}]: mean {mean:.4g}, standard deviation {deviation:.4g}")
