import gc
import os
import warnings
from importlib import import_module
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# WhiteNoise answers with files it reads as it sends them; Django says so once for every file.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")


class Handler(ASGIHandler):
    """Django's, but for how a request gets through the middleware: in one go, in the thread of the request.

    Django's own would take every middleware, the view and what looks at the view to the thread and back each for
    itself: eighteen ways a page, each with a wait for whoever else is at work, twice the time of a small page.
    """

    def load_middleware(self, is_async: bool = False) -> None:
        """The chain as it is without an event loop; an async view still runs in it."""
        super().load_middleware(is_async=False)
        chain: Any = self._middleware_chain  # type: ignore[has-type]
        self._middleware_chain = sync_to_async(chain, thread_sensitive=True)


django.setup(set_prefix=False)
application = Handler()
import_module(settings.ROOT_URLCONF)  # every view, before the first person waits for it
# All of it lives as long as the process. The collector would stop every request for a seventh of a second to look
# through it, once in some two hundred requests.
gc.collect()
gc.freeze()
