"""A small world whose truth is known: coloured shapes in four corners, short words in a row, on a plain background.

A sentence asks for a scene, a scene has a picture, and a picture can be read back without any network. So a model that
was trained on this world can be checked fact by fact: shape, colour, texture, size, place, count, words.

    asked = scenes.draw_asked(rng)          what a sentence leaves open is not decided yet
    sentence = sentences.write(asked, rng)  sentences.read(sentence) == asked
    scene = scenes.arrange(asked, rng)      decides it
    picture = pictures.render(scene, rng)   64×64 or a multiple; offsets and exact sizes are drawn as well
    facts = checks.facts(picture, asked)    each with what was wanted, what is seen, and whether it is right

Pure functions over numpy arrays and a `random.Random`; knows nothing of models.
"""
