"""What one reads in a browser: the OpenAPI and AsyncAPI documents, and the page that shows them."""
