"""What a shell starts in its background is deaf to interrupts, and so are its children: here they hear them again."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
