"""When this build was made: the earliest time that any device running it can live in.

Responsible for one value. A packager may replace this module (a zipapp, a Debian package, an image build);
the value must lie in the past, for a clock that shows less is not believed (``enroll.trust.clock``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

BUILT_AT: Final = datetime(2026, 11, 1, tzinfo=UTC)
