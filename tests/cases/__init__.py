"""Cases from the field, and their relatives: completed means completed.

All of them run whole jobs with real tools, those from the field by the console program. Only `Client` knows how.
"""
