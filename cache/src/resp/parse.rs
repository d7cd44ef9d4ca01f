//! SKELETON: the parser comes here.
