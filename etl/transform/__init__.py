"""From the bytes of the API's answers to the records that are loaded."""
