"""The values that the options of `runtime` accept.

Help and completion of the command line read them. The module imports no library.
"""

from typing import Literal

NativeChoice = Literal["auto", "on", "off"]
