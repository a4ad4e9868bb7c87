#!/usr/bin/env bash
# docs/figures/make.sh [FOLDER]: train the small runs behind docs/figures.md and draw its figures again.
#
# Needs `metarun` and its `python` on the path. The runs go to FOLDER (default: runs/figures) and take about ten minutes
# on two cores; finished runs are kept. All data are generated, so the figures may be published with this repository.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
out=${1:-runs/figures}

metarun train quickstart/protonet quickstart/maml quickstart/reptile quickstart/matchingnet \
    --seeds 0-2 -s train.steps=300 -s validation.every=50 --out "$out/glyphs"
metarun train docs/examples/bandits.yaml --seeds 0-2 -s network.units=64 -s train.meta_batch=250 \
    -s algorithm.minibatch=64 -s train.steps=100 --out "$out/bandits"
metarun train docs/examples/bandits-ucb1.yaml docs/examples/bandits-gittins.yaml --out "$out/bandits"
metarun train finn2017/sinusoid --seeds 0 -s train.steps=5000 -s validation.every=1000 --out "$out/sinusoid"

metarun plot "$out/glyphs" --kind learning --kind adaptation --kind reliability --out "$here"
metarun plot "$out/bandits" --kind regret --kind optimal --out "$here"
metarun plot "$out/sinusoid" --kind fits --out "$here"
metarun plot "$out/glyphs/quickstart-protonet/seed-0" --kind episode --kind embedding --episode 3 --out "$here"
metarun plot "$out/glyphs/quickstart-matchingnet/seed-0" --kind attention --episode 3 --out "$here"
python docs/examples/letters.py "$out/letters"
metarun train quickstart/protonet --out "$out"
metarun predict "$out/quickstart-protonet/seed-0" --support "$out/letters/known" "$out/letters/new" --invert \
    --preview "$here/predict.png" --out "$out/letters/labels.csv"

python - "$here" <<'PYTHON'
"""Scale the figures to a width of at most 1,000 pixels and 96 colours, so that the repository stays small."""

import sys
from pathlib import Path

from PIL import Image

for path in Path(sys.argv[1]).glob("*.png"):
    image = Image.open(path).convert("RGB")
    image.thumbnail((1000, 1200), Image.Resampling.LANCZOS)
    image.quantize(96, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)
PYTHON
