"""Captions are true of their face, and say what they name."""

import numpy as np

from styleclip_jax.toy import attributes, captioning, drawing


def test_a_seed_decides_faces_pictures_and_captions():
    def make() -> tuple[attributes.Face, np.ndarray, captioning.Caption]:
        rng = np.random.default_rng(7)
        face = attributes.sample_face(rng)
        return face, drawing.draw(face, 64), captioning.caption(face, rng)

    (face, picture, caption), (other, other_picture, other_caption) = make(), make()
    assert face == other
    assert caption == other_caption
    np.testing.assert_array_equal(picture, other_picture)


def test_captions_are_true_of_their_face(faces: list[attributes.Face]):
    rng = np.random.default_rng(2)
    captions = [captioning.caption(face, rng) for face in faces]
    vectors = np.stack([attributes.to_vector(face) for face in faces])
    wrong = vectors[:, : attributes.NUM_VALUES] @ captioning.contradictions(captions).T
    assert np.all(np.diag(wrong) == 0)
    # They are also false of most other faces, and in many different words.
    assert np.mean(wrong > 0) > 0.5
    assert len({caption.text for caption in captions}) > 250


def test_captions_name_what_they_say(faces: list[attributes.Face]):
    rng = np.random.default_rng(3)
    for face in faces:
        caption = captioning.caption(face, rng)
        words = caption.text.replace(".", "").split()
        if "sunglasses" in words:
            assert caption.allowed["glasses"] == ("sunglasses",)
        if "bearded" in words:
            assert caption.allowed["facial_hair"] == ("beard",)
        if "smiling" in words:
            assert caption.allowed["mouth"] == ("smile",)
        if "blonde" in words:
            assert caption.allowed["hair_color"] == ("blonde",)
            assert "bald" not in caption.allowed["hair_style"]
