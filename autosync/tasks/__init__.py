"""The queue between the file host and the upload boxes: `messages` on the sending side, `transfer` on the receiving side."""
