"""`python -m spatial_mllm_core.cli`: the same as `spatial-mllm`."""

import sys

from spatial_mllm_core.cli.main import main

sys.exit(main())
