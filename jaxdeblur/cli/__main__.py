"""`python -m jaxdeblur.cli`, for an interpreter whose scripts are not on the path."""

from jaxdeblur.cli import main

main()
