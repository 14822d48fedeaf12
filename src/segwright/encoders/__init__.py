"""One file per backbone. Each returns feature maps of growing stride."""
