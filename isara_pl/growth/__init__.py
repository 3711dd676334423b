"""One outer epoch, without Lightning: values in, values out."""
