"""
The asynchronous consumer of the tutorial of Django Channels, part 3, on Daphne.

Its channel layer is the one in memory: with Redis, as in production, a delivery costs Redis' time beside.
"""

import asyncio
import json
import time

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    SECRET_KEY="for the bench only",
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["daphne", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    ROOT_URLCONF=__name__,
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django_asgi_app = get_asgi_application()


class ChatConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add("chat_room", self.channel_name)
        await self.accept()

    async def disconnect(self, close_code: int) -> None:
        await self.channel_layer.group_discard("chat_room", self.channel_name)

    async def receive(self, text_data: str) -> None:
        await self.send(text_data=text_data)

    async def chat_message(self, event) -> None:
        await self.send(text_data=json.dumps(event["message"], separators=(",", ":")))


@csrf_exempt
async def go(request: HttpRequest) -> JsonResponse:
    asked = {name: float(value) for name, value in request.GET.items()}
    padding = "x" * int(asked["size"])
    due = time.monotonic()
    for _ in range(int(asked["rounds"])):
        at = time.monotonic_ns()
        for turn in range(int(asked["burst"])):
            message = {"at": at + turn, "p": padding}
            await get_channel_layer().group_send("chat_room", {"type": "chat.message", "message": message})
        due += asked["gap"]
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    return JsonResponse(None, safe=False)


urlpatterns = [path("go", go)]
application = ProtocolTypeRouter(
    {
        "http": django_asgi_app,
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter([re_path(r"ws$", ChatConsumer.as_asgi())]))
        ),
    }
)
