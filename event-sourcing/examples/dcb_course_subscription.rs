//! A rule over two things at once: a course has so many seats, and a student takes so many courses (dcb.events).
//!
//! With aggregates one of both rules would be checked too late or not at all, or both things would become one large aggregate whose
//! users wait for each other. Here the decision names the events that it depends on.
//!
//! `cargo run -p event-sourcing --example dcb_course_subscription`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;

use event_sourcing::condition::{Query, QueryItem};
use event_sourcing::error::InvalidName;
use event_sourcing::testing::given;
use event_sourcing::{
    Boundary, Decider, DomainStore, EventContent, ExecuteError, Labels, MemoryStore, domain_events,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How many courses a student takes at most.
const COURSES_MAX: usize = 2;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CourseDefined {
    course: String,
    seats: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SeatsChanged {
    course: String,
    seats: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StudentSubscribed {
    course: String,
    student: String,
}

impl EventContent for CourseDefined {
    const TYPE: &'static str = "course.defined";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("course:{}", self.course));
    }
}

impl EventContent for SeatsChanged {
    const TYPE: &'static str = "course.seats-changed";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("course:{}", self.course));
    }
}

impl EventContent for StudentSubscribed {
    const TYPE: &'static str = "student.subscribed";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("course:{}", self.course));
        labels.add(format!("student:{}", self.student));
    }
}

domain_events! {
    /// What happens at the school.
    #[derive(Clone, Debug, PartialEq)]
    enum SchoolEvent {
        Defined(CourseDefined),
        SeatsChanged(SeatsChanged),
        Subscribed(StudentSubscribed),
    }
}

/// Defines courses: its boundary is one course.
struct Course;

/// Subscribes a student to a course: its boundary is both.
struct Subscription;

#[derive(Debug)]
enum CourseCommand {
    Define { seats: usize },
    ChangeSeats { seats: usize },
}

#[derive(Debug)]
struct Subscribe;

#[derive(Clone, Copy, Debug, PartialEq, Error)]
enum Refusal {
    #[error("the course is there already")]
    Defined,
    #[error("there is no such course")]
    NoCourse,
    #[error("the course is full")]
    Full,
    #[error("the student takes enough courses already")]
    Enough,
    #[error("the student takes this course already")]
    Twice,
}

impl Decider for Course {
    const NAME: &'static str = "course";

    type Id = String;
    type State = (String, Option<usize>);
    type Command = CourseCommand;
    type Event = SchoolEvent;
    type Rejection = Refusal;

    fn boundary(course: &String) -> Result<Boundary, InvalidName> {
        let types = [CourseDefined::TYPE, SeatsChanged::TYPE];
        let item = QueryItem::of(types, [format!("course:{course}")])?;
        Ok(Boundary::query(Query::item(item)))
    }

    fn initial(course: &String) -> Self::State {
        (course.clone(), None)
    }

    fn evolve((_, seats): &mut Self::State, event: &SchoolEvent) {
        match event {
            SchoolEvent::Defined(defined) => *seats = Some(defined.seats),
            SchoolEvent::SeatsChanged(changed) => *seats = Some(changed.seats),
            SchoolEvent::Subscribed(_) => {}
        }
    }

    fn decide(
        (course, defined): &Self::State,
        command: &CourseCommand,
    ) -> Result<Vec<SchoolEvent>, Refusal> {
        let course = course.clone();
        match (command, defined) {
            (CourseCommand::Define { .. }, Some(_)) => Err(Refusal::Defined),
            (&CourseCommand::Define { seats }, None) => {
                Ok(vec![CourseDefined { course, seats }.into()])
            }
            (CourseCommand::ChangeSeats { .. }, None) => Err(Refusal::NoCourse),
            (&CourseCommand::ChangeSeats { seats }, Some(_)) => {
                Ok(vec![SeatsChanged { course, seats }.into()])
            }
        }
    }
}

/// What a subscription depends on.
#[derive(Debug, PartialEq)]
struct Places {
    course: String,
    student: String,
    seats: Option<usize>,
    taken: usize,
    courses: usize,
    is_in: bool,
}

impl Decider for Subscription {
    const NAME: &'static str = "subscription";

    /// Course and student.
    type Id = (String, String);
    type State = Places;
    type Command = Subscribe;
    type Event = SchoolEvent;
    type Rejection = Refusal;

    fn boundary((course, student): &Self::Id) -> Result<Boundary, InvalidName> {
        let of_course = [CourseDefined::TYPE, SeatsChanged::TYPE, StudentSubscribed::TYPE];
        let of_course = QueryItem::of(of_course, [format!("course:{course}")])?;
        let of_student = QueryItem::of([StudentSubscribed::TYPE], [format!("student:{student}")])?;
        Ok(Boundary::query(Query::item(of_course).or(of_student)))
    }

    fn initial((course, student): &Self::Id) -> Places {
        let (course, student) = (course.clone(), student.clone());
        Places { course, student, seats: None, taken: 0, courses: 0, is_in: false }
    }

    fn evolve(places: &mut Places, event: &SchoolEvent) {
        match event {
            SchoolEvent::Defined(defined) => places.seats = Some(defined.seats),
            SchoolEvent::SeatsChanged(changed) => places.seats = Some(changed.seats),
            SchoolEvent::Subscribed(event) => {
                let is_course = event.course == places.course;
                let is_student = event.student == places.student;
                places.taken += usize::from(is_course);
                places.courses += usize::from(is_student);
                places.is_in |= is_course && is_student;
            }
        }
    }

    fn decide(places: &Places, _: &Subscribe) -> Result<Vec<SchoolEvent>, Refusal> {
        let seats = places.seats.ok_or(Refusal::NoCourse)?;
        if places.is_in {
            return Err(Refusal::Twice);
        }
        if places.taken >= seats {
            return Err(Refusal::Full);
        }
        if places.courses >= COURSES_MAX {
            return Err(Refusal::Enough);
        }
        let (course, student) = (places.course.clone(), places.student.clone());
        Ok(vec![StudentSubscribed { course, student }.into()])
    }
}

fn of(course: &str, student: &str) -> (String, String) {
    (course.to_owned(), student.to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let defined = |course: &str, seats| CourseDefined { course: course.to_owned(), seats }.into();
    let subscribed = |course: &str, student: &str| {
        let (course, student) = of(course, student);
        SchoolEvent::from(StudentSubscribed { course, student })
    };
    given::<Subscription>([]).on(of("c1", "ada")).when(Subscribe).then_rejected(Refusal::NoCourse);
    given::<Subscription>([defined("c1", 1), subscribed("c1", "bob")])
        .on(of("c1", "ada"))
        .when(Subscribe)
        .then_rejected(Refusal::Full);
    let seats = SeatsChanged { course: "c1".to_owned(), seats: 2 };
    given::<Subscription>([defined("c1", 1), subscribed("c1", "bob"), seats.into()])
        .on(of("c1", "ada"))
        .when(Subscribe)
        .then_events([subscribed("c1", "ada")]);
    given::<Subscription>([defined("c1", 9), subscribed("c2", "ada"), subscribed("c3", "ada")])
        .on(of("c1", "ada"))
        .when(Subscribe)
        .then_rejected(Refusal::Enough);

    let store = MemoryStore::default();
    for course in ["algebra", "logic", "poetry"] {
        store.execute::<Course>(CourseCommand::Define { seats: 1 }).on(course).wait()?;
    }
    let subscribe = |course, student| {
        let outcome = store.execute::<Subscription>(Subscribe).on(of(course, student)).wait();
        match outcome {
            Ok(_) => Ok(None),
            Err(ExecuteError::Rejected(refusal)) => Ok(Some(refusal)),
            Err(error) => Err(error),
        }
    };
    assert_eq!(subscribe("algebra", "ada")?, None);
    assert_eq!(subscribe("algebra", "bob")?, Some(Refusal::Full));
    println!("bob is too late for algebra");
    store.execute::<Course>(CourseCommand::ChangeSeats { seats: 2 }).on("algebra").wait()?;
    assert_eq!(subscribe("algebra", "bob")?, None);
    println!("with another chair there is room for him");
    assert_eq!(subscribe("logic", "ada")?, None);
    assert_eq!(subscribe("poetry", "ada")?, Some(Refusal::Enough));
    println!("ada takes two courses, and no third");
    Ok(())
}
