"""The app for the browser: a recording in, model neurons out, on this computer."""

from dicjax.app.server import serve as serve
