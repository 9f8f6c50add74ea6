"""What tests share: records and plans made by hand, steps opened for a test, and what attacks act on."""

from tests.fakes.records import *  # noqa: F403
from tests.fakes.steps import *  # noqa: F403
