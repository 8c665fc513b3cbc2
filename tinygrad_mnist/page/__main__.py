"""The page in the browser: python -m tinygrad_mnist.page, until Ctrl-C."""

import argparse
import contextlib
import errno
import sys

from tinygrad_mnist.page.reading import opened
from tinygrad_mnist.page.server import FOLDER, Server


def port(text: str) -> int:
    """Return the number of a port."""
    if int(text) not in range(1 << 16):
        raise ValueError
    return int(text)


parser = argparse.ArgumentParser(prog="python -m tinygrad_mnist.page", description=__doc__)
parser.add_argument("--port", type=port, default=8000, help="default: 8000; 0 is any")
default = FOLDER / "model.npz"
parser.add_argument("--model", metavar="FILE", default=default, help="that reads the drawings")
args = parser.parse_args()

try:
    server = Server(args.port, opened(args.model))
except (OSError, ValueError) as error:
    used = getattr(error, "errno", None) == errno.EADDRINUSE
    sys.exit(f"port {args.port} is in use: choose another, or 0 for any" if used else str(error))
with contextlib.suppress(KeyboardInterrupt), server:
    print(server.address, flush=True)
    server.serve_forever()
