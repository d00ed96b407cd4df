"""What tests, demo and soak need besides autosync: real servers on loopback, a proxy with faults, random operations. Not in the package."""

from pathlib import Path

#: The directory of the project.
ROOT = Path(__file__).resolve().parent.parent
