"""What tests share: records and plans made by hand, images, networks of known behaviour, hosts, opened steps."""

from tests.fakes.hosts import *  # noqa: F403  # one name for all fakes
from tests.fakes.images import *  # noqa: F403  # one name for all fakes
from tests.fakes.records import *  # noqa: F403  # one name for all fakes
from tests.fakes.steps import *  # noqa: F403  # one name for all fakes
