"""Does this scheme, attack or installation work?"""
