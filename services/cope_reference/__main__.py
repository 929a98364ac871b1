"""``python -m cope_reference --model NAME=FOLDER [--model …] --port P``: serve small models on a CPU."""

import argparse
import os
from pathlib import Path


def main() -> None:
    """Parse the arguments, limit the numeric library's threads, and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="cope_reference", description=__doc__)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=FOLDER", help="a model to serve")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--threads", type=int, default=1, help="threads of each matrix product (default 1)")
    parser.add_argument("--most", type=int, default=64, help="sequences decoded at once, per model (default 64)")
    parser.add_argument("--max-queue", type=int, default=4096, help="requests that may wait, per model (default 4096)")
    arguments = parser.parse_args()
    # Read by the numeric library when it is first imported, so before anything that imports it.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)

    import uvicorn

    from cope_reference.engine import Engine
    from cope_reference.server import create_app

    engines = {}
    for item in arguments.model:
        name, _, folder = item.partition("=")
        if not folder:
            parser.error(f"--model {item}: write it as NAME=FOLDER")
        engines[name] = Engine(Path(folder), most=arguments.most, waiting=arguments.max_queue), Path(folder)
    app = create_app(engines)
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning", access_log=False, backlog=2048)


if __name__ == "__main__":
    main()
