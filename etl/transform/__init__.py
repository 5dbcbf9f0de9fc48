"""Transform: from the bytes of the API's responses to the records that load writes."""
