"""`python -m hf_distill` is `hf-distill`, for `accelerate launch -m hf_distill …`."""

import sys

from hf_distill.cli import main


if __name__ == "__main__":
    sys.exit(main())
