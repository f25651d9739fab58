"""The client's hands: asyncio. They carry; the link decides."""
