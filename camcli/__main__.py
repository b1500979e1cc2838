"""`python -m camcli` is `camviz`."""

import sys

from camcli.cli.app import main

sys.exit(main())
