"""What is known, due, claimed and set aside: everything the service must remember between polls."""
