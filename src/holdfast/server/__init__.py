"""The server's hands: sockets, clocks and dice. They carry; they do not decide."""
