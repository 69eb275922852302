"""What gunicorn serves."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

application = get_wsgi_application()

# Import the views now rather than during the first request, which would be slow for that and nothing else.
_ = get_resolver().url_patterns
