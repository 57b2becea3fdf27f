"""Reads the text channels of a server with LlamaIndex's reader, and prints how much it found.

The reader starts a session with Discord's gateway, which the world has none of, and takes channels
and active threads from it. Here it is given them by requests.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import discord
import discord.http
from llama_index.readers.discord import DiscordReader

url, token = sys.argv[1:3]
discord.http.Route.BASE = url
channels: dict[int, discord.abc.GuildChannel] = {}


async def start(client: discord.Client, token: str) -> None:
    await client.login(token)
    async for one in client.fetch_guilds():
        guild = await client.fetch_guild(one.id)
        for channel in await guild.fetch_channels():
            guild._add_channel(channel)
            channels[channel.id] = channel
        for thread in await guild.active_threads():
            guild._add_thread(thread)
    await client.on_ready()


async def text_channels() -> list[int]:
    async with discord.Client(intents=discord.Intents.default()) as client:
        await client.login(token)
        return [
            channel.id
            async for guild in client.fetch_guilds()
            for channel in await (await client.fetch_guild(guild.id)).fetch_channels()
            if isinstance(channel, discord.TextChannel)
        ]


asyncio.set_event_loop(asyncio.new_event_loop())
discord.Client.start = start
discord.Client.get_channel = lambda client, known: channels.get(known)
ids = asyncio.get_event_loop().run_until_complete(text_channels())
found = DiscordReader(token).load_data(ids)
kinds = {"Message": "messages", "Today": "messages", "Reply": "threads"}
print(json.dumps(Counter(kinds.get(one.text.split()[0], "messages") for one in found if one.text)))
