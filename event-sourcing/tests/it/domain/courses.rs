//! A rule over several things: a course has seats, and a student takes so many courses. Its boundary is a query.

use event_sourcing::condition::{Query, QueryItem};
use event_sourcing::error::InvalidName;
use event_sourcing::{Boundary, Decider, EventContent, Labels, domain_events};
use serde::{Deserialize, Serialize};

pub(super) const SEATS: u32 = 2;
pub(super) const COURSES: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscribed {
    pub(super) course: String,
    pub(super) student: String,
}

impl EventContent for Subscribed {
    const TYPE: &'static str = "student.subscribed";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("course:{}", self.course));
        labels.add(format!("student:{}", self.student));
    }
}

domain_events! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(super) enum CourseEvent {
        Subscribed(Subscribed),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum No {
    Twice,
    Full,
    Enough,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seats {
    course: String,
    student: String,
    pub(super) taken: u32,
    pub(super) courses: u32,
    is_in: bool,
}

#[derive(Debug)]
pub(super) struct Subscribe;

/// Course and student.
pub(super) fn of(course: &str, student: &str) -> (String, String) {
    (course.to_owned(), student.to_owned())
}

impl Decider for Subscription {
    const NAME: &'static str = "subscription";

    type Id = (String, String);
    type State = Seats;
    type Command = Subscribe;
    type Event = CourseEvent;
    type Rejection = No;

    fn boundary((course, student): &Self::Id) -> Result<Boundary, InvalidName> {
        let about = |label: String| QueryItem::of([Subscribed::TYPE], [label]);
        let query = Query::item(about(format!("course:{course}"))?)
            .or(about(format!("student:{student}"))?);
        Ok(Boundary::query(query))
    }

    fn initial((course, student): &Self::Id) -> Seats {
        Seats {
            course: course.clone(),
            student: student.clone(),
            taken: 0,
            courses: 0,
            is_in: false,
        }
    }

    fn evolve(seats: &mut Seats, CourseEvent::Subscribed(event): &CourseEvent) {
        let (course, student) = (event.course == seats.course, event.student == seats.student);
        seats.taken += u32::from(course);
        seats.courses += u32::from(student);
        seats.is_in |= course && student;
    }

    fn decide(seats: &Seats, _: &Subscribe) -> Result<Vec<CourseEvent>, No> {
        if seats.is_in {
            return Err(No::Twice);
        }
        if seats.taken >= SEATS {
            return Err(No::Full);
        }
        if seats.courses >= COURSES {
            return Err(No::Enough);
        }
        let event = Subscribed { course: seats.course.clone(), student: seats.student.clone() };
        Ok(vec![event.into()])
    }
}

pub(super) struct Subscription;
