"""What moevar's analysis scripts share: reading study.h5, statistics, figures."""
