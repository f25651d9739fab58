"""Publishing from outside of a consumer; and who is in the group, as the channel layer has it."""

import json

from channels.layers import get_channel_layer
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
async def publish(request: HttpRequest) -> JsonResponse:
    await get_channel_layer().group_send("chat_room", {"type": "chat.message", "message": json.loads(request.body)})
    return JsonResponse(None, safe=False)


async def members(request: HttpRequest) -> JsonResponse:
    layer = get_channel_layer()
    connection = layer.connection(layer.consistent_hash("chat_room"))
    return JsonResponse(await connection.zcard(layer._group_key("chat_room")), safe=False)


urlpatterns = [path("publish", publish), path("members", members)]
