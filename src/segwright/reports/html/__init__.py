"""What pages for people are made of: shell and style, pictures, bars and curves, each HTML that needs no other file."""
