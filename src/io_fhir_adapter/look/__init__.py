"""What pages are made of, the hospital's and the accreditation body's: looks, charts, words, walls."""
