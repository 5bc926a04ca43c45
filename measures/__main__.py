"""``python -m measures``: print the page of documentation that lists all measures."""

import sys

from measures.catalogue import catalogue

sys.stdout.write(catalogue())
