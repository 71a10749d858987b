"""The whole job against accreditation endpoints of other makers: what they answer is judged, and nothing is there twice."""
