"""The decisions: plain synchronous code without clock, dice, sockets or asyncio."""
