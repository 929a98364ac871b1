"""``python -m cope_reference --model [NAME=]FOLDER [--model …] --port P``: serve small models on a CPU.

A folder without a name is served as ``cope-reference-`` and the folder's own name. One process per model runs fastest:
two engines in one process share Python's lock.
"""

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    """Parse the arguments, limit the numeric library's threads, and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="cope_reference", description=__doc__)
    parser.add_argument(
        "--model", "--model-dir", action="append", required=True, metavar="[NAME=]FOLDER", help="a model to serve"
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--threads", type=positive, default=1, help="threads of each matrix product (default 1)")
    parser.add_argument("--most", type=positive, default=64, help="sequences decoded at once, per model (default 64)")
    parser.add_argument(
        "--max-queue", type=positive, default=4096, help="sequences that may wait, per model (default 4096)"
    )
    parser.add_argument("--prefix-mib", type=positive, default=64, help="for computed prompts, per model (default 64)")
    arguments = parser.parse_args()
    # Read by the numeric library when it is first imported, so before anything that imports it.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)

    import uvicorn

    from cope_reference.engine import Engine
    from cope_reference.served import Served
    from cope_reference.server import create_app
    from cope_reference.weights import UnsupportedModel

    models: dict[str, Served] = {}
    for item in arguments.model:
        name, folder = named_folder(item)
        if name in models:
            parser.error(f"--model: two models are called {name}")
        try:
            engine = Engine(
                folder,
                most=arguments.most,
                waiting=arguments.max_queue,
                prefix_bytes=arguments.prefix_mib << 20,
            )
            models[name] = Served(name, engine, folder)
        except (OSError, UnsupportedModel, ValueError) as wrong:
            sys.stderr.write(f"cope_reference: {name}: {wrong}\n")
            return 1
    uvicorn.run(
        create_app(list(models.values())),
        host=arguments.host,
        port=arguments.port,
        access_log=False,
        backlog=2048,
        timeout_graceful_shutdown=3,
    )
    return 0


def positive(text: str) -> int:
    """A whole number ≥ 1. Raises `ValueError`, which argparse reports as an invalid value."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def named_folder(item: str) -> tuple[str, Path]:
    """``NAME=FOLDER``, or a folder alone, which gives its own name."""
    name, sign, rest = item.partition("=")
    folder = Path(rest if sign else item)
    return (name if sign else f"cope-reference-{folder.resolve().name}"), folder


if __name__ == "__main__":
    sys.exit(main())
