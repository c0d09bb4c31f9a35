"""Cases from the field, and their relatives: completed means completed.

All of them go through the console program and real tools. Nothing here knows the product's inner structure.
"""
