"""`python -m jaxdeblur`, for an interpreter whose scripts are not on the path."""

from jaxdeblur.cli import main

main()
