"""Small things that are about no subject of ours."""
