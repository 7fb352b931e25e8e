//! kubectl: the command line of the API.
