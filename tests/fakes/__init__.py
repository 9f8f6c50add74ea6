"""What tests share: records and plans made by hand, images, networks of known behaviour, and owners' hosts."""

from tests.fakes.hosts import *  # noqa: F403
from tests.fakes.images import *  # noqa: F403
from tests.fakes.records import *  # noqa: F403
