def test_1(f):
    assert f('  hi  ') == 'hi'


def test_2(f):
    assert f('hi') == 'hi'


def test_3(f):
    assert f(' a b ') == 'a b'


def test_4(f):
    assert f('   ') == ''
